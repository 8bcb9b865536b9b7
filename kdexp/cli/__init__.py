"""The command line: verbs, sentences, what is shown before and after a run."""
