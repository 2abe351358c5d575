"""What may be written? ImageCache, NodeImage and PrewarmPolicy, their schemas, and the names of annotations and labels."""
