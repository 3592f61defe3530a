# SPDX-License-Identifier: GPL-2.0
"""The virtual cluster: node image, disks, network, machines."""
