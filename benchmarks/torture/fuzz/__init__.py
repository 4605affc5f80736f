"""Hostile input at every place where bytes come from outside."""
