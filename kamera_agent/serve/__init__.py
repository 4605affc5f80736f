"""A server in front of a Kamera, for agents that speak a chat protocol over HTTP. Needs the extra "serve".

Each protocol has a folder: the body of its requests, how they are read, and the form of its replies.
"""
