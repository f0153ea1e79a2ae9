"""Whole experiments: a recipe in, a trained model or the paper's tables out."""
