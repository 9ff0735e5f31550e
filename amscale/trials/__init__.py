"""What ran: identity by content, typed records, and the store that keeps trials in a folder or as objects."""
