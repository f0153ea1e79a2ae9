"""The version of Histoloom, in this one place: the build reads it from here."""

VERSION = "0.2.0.dev0"
