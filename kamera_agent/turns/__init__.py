"""Conversations for every front end: messages, transcripts, tool calls, grammars, live windows."""
