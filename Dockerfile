# The program alone, as a user without rights: no shell, no packages. Built for another
# platform by `docker buildx build --platform linux/arm64 .`
FROM --platform=$BUILDPLATFORM golang:1.27.3 AS build
ARG TARGETOS TARGETARCH VERSION=unknown
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o /out/benthos-kinesis ./cmd/benthos-kinesis

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/benthos-kinesis /benthos-kinesis
USER 65532:65532
EXPOSE 4195
# Ready is who reads: where what is not healthy is ended, as in Swarm, ask for /ping, which
# an outage of AWS does not touch.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["/benthos-kinesis", "healthcheck", "http://127.0.0.1:4195/ready"]
ENTRYPOINT ["/benthos-kinesis"]
CMD ["-c", "/benthos.yaml"]
