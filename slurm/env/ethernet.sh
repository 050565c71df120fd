#!/bin/bash
# Example of a site with Ethernet only: SITE=ethernet. Names of interfaces: `ip -br link`.

# source /shared/venvs/lightning-rad/bin/activate
export NCCL_IB_DISABLE=1
export NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-^lo,docker,virbr} # any but these
export GLOO_SOCKET_IFNAME=${GLOO_SOCKET_IFNAME:-eth0}             # gloo takes one exact name
export NCCL_SOCKET_NTHREADS=${NCCL_SOCKET_NTHREADS:-4}            # one thread does not fill 25 Gbit/s
export NCCL_NSOCKS_PERTHREAD=${NCCL_NSOCKS_PERTHREAD:-4}
