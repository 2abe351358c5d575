"""Did it help? Container starts become outcomes, lead times, and bytes used or wasted."""
