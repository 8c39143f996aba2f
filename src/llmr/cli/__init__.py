"""The command line: parse, resolve settings, run; data on stdout, talk on stderr."""
