"""Speed and memory, measured against the textbook way in the same run. Nothing here is a test."""
