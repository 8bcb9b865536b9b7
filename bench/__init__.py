"""Speed and memory of kdexp, beside other ways to the same numbers, measured in one run. Nothing here is a test."""
