"""The store: finished stages by content, shared by all runs and processes, here and in object storage."""
