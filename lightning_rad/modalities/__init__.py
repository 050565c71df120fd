"""The meaning of each kind of evidence in a study; nothing here learns."""
