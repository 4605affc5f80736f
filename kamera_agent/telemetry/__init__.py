"""What happened, as plain records."""
