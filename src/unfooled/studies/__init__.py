"""Whole studies, each of one command: they measure, and leave a run folder with its report."""
