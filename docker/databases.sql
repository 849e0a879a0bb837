-- Run once, on an empty server: a role and a database each for studies and for MLflow, which see nothing of the other.
-- A statement that fails is not to be logged with the password in it.
SET log_min_error_statement = panic;
SET log_statement = none;
\getenv optmerge_password OPTMERGE_PASSWORD
\getenv mlflow_password MLFLOW_PASSWORD
CREATE ROLE optmerge LOGIN PASSWORD :'optmerge_password';
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow_password';
CREATE DATABASE optmerge OWNER optmerge;
CREATE DATABASE mlflow OWNER mlflow;
REVOKE CONNECT ON DATABASE optmerge, mlflow FROM PUBLIC;
