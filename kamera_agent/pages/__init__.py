"""What plug-ins for serving engines share: windows whose KV is in an engine's pages and in our store."""
