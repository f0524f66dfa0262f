"""Environments of other packages as ours, and ours as theirs. Each module needs the extra of the package it wraps."""
