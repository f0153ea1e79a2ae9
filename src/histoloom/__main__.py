"""`python -m histoloom` runs the command line."""

from histoloom.cli.main import run

if __name__ == "__main__":
    run()
