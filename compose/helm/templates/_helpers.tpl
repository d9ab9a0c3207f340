{{- define "carillon.labels" -}}
app.kubernetes.io/name: carillon
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "carillon.selector" -}}
app.kubernetes.io/name: carillon
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "carillon.image" -}}
{{- $image := .root.Values.image -}}
{{ if .gpus }}{{ $image.gpuRepository }}{{ else }}{{ $image.repository }}{{ end }}:{{ $image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- define "carillon.security" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
{{- end }}

{{- define "carillon.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
fsGroup: 1000
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* What every process is told. Secrets are named, and never copied. */}}
{{- define "carillon.environment" -}}
{{- $secret := .root.Values.existingSecret -}}
{{- range $variable, $key := dict "CARILLON_DATABASE_URL" "database-url" "CARILLON_REDIS_URL" "redis-url" "CARILLON_STORE__ACCESS_KEY" "store-access-key" "CARILLON_STORE__SECRET_KEY" "store-secret-key" "CARILLON_KEY_PEPPER" "key-pepper" "CARILLON_FLEET_SECRET" "fleet-secret" }}
- name: {{ $variable }}
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: {{ $key }}}}
{{- end }}
- {name: CARILLON_STORE__ENDPOINT_URL, value: {{ .root.Values.store.endpointUrl | quote }}}
- {name: CARILLON_STORE__BUCKET, value: {{ .root.Values.store.bucket | quote }}}
- {name: CARILLON_STORE__REGION, value: {{ .root.Values.store.region | quote }}}
- {name: CARILLON_LOG_FORMAT, value: json}
- {name: CARILLON_DRAIN_TIMEOUT_S, value: {{ .root.Values.drainSeconds | quote }}}
- {name: CARILLON_HANDOVER_TIMEOUT_S, value: {{ .root.Values.handoverSeconds | quote }}}
{{- range $name, $value := merge (dict) (.settings | default dict) .root.Values.settings }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}
