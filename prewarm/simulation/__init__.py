"""What would a node do? A discrete-event model of registry, network, kubelet and its images."""
