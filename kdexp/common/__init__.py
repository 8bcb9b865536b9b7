"""What every layer may use: files, names, machines, signals. Small on purpose."""
