"""What must not break a store: kills, power cuts, damaged files, failing system calls, crowds and hostile input."""
