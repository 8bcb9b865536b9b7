"""Text: files and the hub, tokenisation, the embedded corpora."""
