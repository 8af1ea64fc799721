"""The step, the network and the devices it runs on."""
