"""The losses of tasks, each as a sum and its weight: they add up over devices."""
