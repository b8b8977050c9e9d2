#!/bin/sh
echo "@GREETING@, ${WHO:-you}: uid $(id -u), root file system of $(ls / | wc -l) entries, pid $$"
