"""One verb of the command line, one file: its parser and what it does."""
