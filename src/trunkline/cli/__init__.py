"""The command line: thin, each command in a module of its own that is imported when it runs."""
