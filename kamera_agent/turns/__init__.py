"""Conversations as a chat protocol has them, for every front end: windows, transcripts, tool calls, grammars."""
