"""What runs inside the lab's dom0: the start-up script, the agent, and the protocol it speaks."""
