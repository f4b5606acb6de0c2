"""The commands that work on files of trained models: inspect, convert, verify and run."""
