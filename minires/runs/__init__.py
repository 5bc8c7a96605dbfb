"""What is kept on disk: nothing else opens the files of a run."""
