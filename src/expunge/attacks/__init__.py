"""Attacks: attempts to bring back what was unlearned, each a frozen dataclass in the registry, one file each."""
