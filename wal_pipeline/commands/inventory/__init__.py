"""Lists what the stores hold of a cluster, without the catalog."""
