"""Works out which moments can be restored, and from which base backup and files."""
