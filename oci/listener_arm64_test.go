package oci

const mkdirNumber = 0xffffffff // arm64 has mkdirat only
