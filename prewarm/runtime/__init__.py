"""How does a container runtime lose an image? A small client of the kubelet's own interface to it (CRI)."""
