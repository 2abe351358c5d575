"""What may be written? ImageCache, NodeImage, PrewarmPolicy and their schemas; annotation and label names."""
