"""The driver `docker`: containers of an engine on this machine, with our agent as their program."""
