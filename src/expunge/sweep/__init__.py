"""Every method tuned with the same budget on some records, then compared on others: `expunge sweep`."""

from expunge.sweep.driver import commands, judge, run
from expunge.sweep.leaderboard import leaderboard, legend

__all__ = ["commands", "judge", "leaderboard", "legend", "run"]
