"""Other people's formats in and out: LeRobot v3, HDF5 (robomimic, LIBERO), conversations."""
