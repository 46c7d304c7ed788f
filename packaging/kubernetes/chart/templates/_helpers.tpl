{{- define "eplbd.name" }}eplbd-{{ .Release.Name }}{{ end }}
{{- define "eplbd.labels" -}}
app.kubernetes.io/name: eplbd
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "eplbd.metadata" -}}
name: {{ include "eplbd.name" . }}
labels:
  {{- include "eplbd.labels" . | nindent 2 }}
  app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .Release.Service }}
  helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}
{{- /* Not empty: two daemons, of which one leads. */}}
{{- define "eplbd.ha" }}{{ with .Values.config.ha }}{{ with .etcd }}true{{ end }}{{ end }}{{ end }}
