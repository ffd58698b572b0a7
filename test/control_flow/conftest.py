"""Inside transforms these operators need a release that compiles them in one place."""

from functorch_ext._releases import since

collect_ignore_glob = [] if since((2, 13)) else ["test_*.py"]
