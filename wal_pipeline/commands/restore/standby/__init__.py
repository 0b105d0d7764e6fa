"""Makes a restored cluster, or a data directory that is there, follow a living primary or the stores."""
