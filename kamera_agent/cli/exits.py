"""The exit codes of the commands. The command line itself is answered with 2 by click where it is wrong."""

FAILED = 1
DAMAGED = 3
