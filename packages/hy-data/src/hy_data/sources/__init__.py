"""Where clips come from: folders, lists, addresses."""
