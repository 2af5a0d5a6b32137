# What the firewall lets in for the homeserver: a ufw application profile.  Where the host uses ufw:
#   install -m 0644 deploy/conduit/ufw.profile /etc/ufw/applications.d/conduit && ufw app update Conduit && ufw allow Conduit
# SSH and Gitea's own ports are not ours to open or to close.
#
# Never here: 6167 (Conduit's plain HTTP on loopback), 3000 and 8080 (Gitea, and what an older design opened).  A port that
# docker publishes is let in past ufw: bind it to 127.0.0.1.
[Conduit]
title=Matrix homeserver behind Caddy
description=Client and server API of Conduit, served by Caddy with TLS
# 80: ACME and the redirect; 443: clients and most servers, over UDP as HTTP/3; 8448: servers that come without .well-known.
ports=80,443,8448/tcp|443/udp
