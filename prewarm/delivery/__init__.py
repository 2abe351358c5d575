"""Who pulls it? Plans become ImageCache objects, and withdrawn ones go."""
