"""The commands of the command line, one a module, each with `command(arguments) -> exit status`."""
