"""Removal requests one after the other: what was removed, from which model, with which verdict, and if it stays so."""
